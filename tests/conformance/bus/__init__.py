"""One suite for every bus behind the bridge: the stand-in of the tests and a real Kafka."""
