"""The proof of storage: power loss at every point of input and output, calls that fail, disks that are full, processes that are killed."""
