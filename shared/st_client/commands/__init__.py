"""The commands of ``st``, one file a subject; each is imported when it is called."""
