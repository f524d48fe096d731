"""What accelerators a host has and how busy they are: one probe a vendor behind one interface."""
