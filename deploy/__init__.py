"""How it is run and shown: demo, benchmarks, examples, set-up of machines. May import everything."""
