"""Use cases: one transaction each; they join store, domain and outbox."""
