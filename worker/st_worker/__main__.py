"""``python -m st_worker`` is ``st-worker``."""

from st_worker.cli import main

if __name__ == "__main__":
    main()
