"""Many outboxes on many machines: Kafka's group coordinator says which instance tries a unit, the slot which may."""
