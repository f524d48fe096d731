"""The controller: queue, governance, events, dashboard."""
