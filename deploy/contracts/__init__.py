"""The contracts, generated from the code: AsyncAPI of what goes over MQTT and Kafka, JSON Schema of the events, OpenAPI of both APIs."""
