"""``python -m st_trainer`` is ``st-train``."""

from st_trainer.cli import main

if __name__ == "__main__":
    main()
