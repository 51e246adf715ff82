"""What many tests need: free ports, child processes, engines, guards."""
