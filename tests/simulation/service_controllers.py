"""Processes of the controller, as far as they lead."""

from usual_collector import UsualCollector

from st_controller.dispatch.leadership import Leadership
from st_controller.dispatch.rounds import Rounds
from st_controller.domain.workers import Patience
from st_controller.services.live_queue import LiveQueue, News
from st_controller.store.database import Database


class Controller:
    """One process of the controller: it may lead, and all that it has in memory dies with it."""

    def __init__(self, db: Database, patience: Patience, name: str) -> None:
        self.name = name
        self.queue = LiveQueue()
        self.rounds = Rounds(db, patience, self.queue)
        self.rounds._long_lived = UsualCollector()  # type: ignore[assignment]
        self.lead: Leadership | None = None
        self.topics: set[str] = set()
        """What it was told of since it looked."""
        self.is_told_all = True
        """Whether no change was kept from it since it read everything; who dies may tell nobody."""

    def news(self) -> News:
        """As the dispatcher has them: what was told, and now and then what nobody told."""
        news, self.topics = News.of(self.topics), set()
        news.all_jobs = news.all_workers = news.rules = True
        return news
