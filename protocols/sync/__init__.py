"""The sync machines without input or output: uplink, receiver, receipts. Time and bytes are arguments."""
