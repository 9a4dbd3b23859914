//! Kafka: consumer, broker ends, dead letters, embedded broker.
