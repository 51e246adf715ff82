"""What is said between machines: messages, codec, ledger, merge, and the sync machines. Imports no other folder."""
