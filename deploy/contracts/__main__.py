"""`python -m deploy.contracts`: write the contracts anew."""

from deploy.contracts.documents import write

if __name__ == "__main__":
    write()
