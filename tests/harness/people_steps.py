"""Users of several organisations with keys, on an application under test."""

from st_controller.services import api_keys, rights
from st_controller.services.caller import Caller
from st_controller.store.schema import User
from st_shared.protocol.resources import ApiKeyRequest


class People:
    """Makes users as an admin does, and gives their keys."""

    def __init__(self, client, admin_headers) -> None:
        self.client, self.admin = client, admin_headers
        self.db = client.app.state.platform.db

    def ask(self, method, path, body=None, headers=None):
        """An answer of the API to the admin, or to the holder of ``headers``."""
        return self.client.request(method, f"/v1/{path}", json=body, headers=headers or self.admin)

    def must(self, method, path, body=None, headers=None):
        """The body of an answer that is a success."""
        reply = self.ask(method, path, body, headers)
        assert reply.is_success, reply.text
        return reply.json() if reply.content else None

    def org(self, slug, *teams) -> None:
        """An organisation with these teams beside its first."""
        self.must("POST", "orgs", {"slug": slug, "name": slug.title()})
        for team in teams:
            self.must("POST", "teams", {"slug": team, "org": org_of(slug)})

    def user(self, name, role="researcher", org="default", *teams, scopes=None):
        """A user of these teams; headers with a key of theirs."""
        first, *others = teams or ("default",)
        body = {"username": name, "role": role, "org": org, "team": first}
        self.must("POST", "users", body)
        for team in others:
            self.must("PUT", f"teams/{org}/{team}/members/{name}")
        return self.key(name, scopes)

    def key(self, name, scopes=None):
        """Headers with a new key of a user, whether or not they may make keys."""
        with self.db.write() as tx:
            rows = tx.session.execute(rights.rights_query().where(User.username == name)).all()
            held = rights.rights_of(rows)
            assert held is not None, f"{name} cannot sign in"
            owner = Caller(
                permissions=held.permissions(),
                via="session",
                credential_id="",
                **rights.identity_of(held),
            )
            made = api_keys.create_key(tx, owner, ApiKeyRequest(name="k", scopes=scopes))
        return {"Authorization": f"Bearer {made.key}"}


def org_of(slug: str) -> str:
    """The organisation in a path ``org/team``."""
    return slug.partition("/")[0]
