"""Many organisations and teams, each with a user and a key, put where a controller keeps them."""

from datetime import datetime
from typing import Any

from served import Controller
from sqlalchemy import create_engine, insert

from st_controller.auth import passwords, secrets
from st_controller.auth.secrets import SecretKind
from st_controller.domain.policy.roles import Role
from st_controller.store.schema import ApiKey, Membership, Organisation, Team, User
from st_shared.clock import utc_now
from st_shared.ids import new_id


def add_teams(controller: Controller, orgs: int, teams: int) -> list[str]:
    """One key for each team ``team-N`` of each organisation ``org-N``; its user is an admin."""
    now, users, keys, given = utc_now(), [], [], []
    nobody_knows = passwords.hash_password(secrets.new_secret(SecretKind.SESSION))
    for number in range(orgs * teams):
        user_id, key = new_id("usr"), secrets.new_secret(SecretKind.API_KEY)
        given.append(key)
        users.append(
            {
                "id": user_id,
                "username": f"user-{number}",
                "password_hash": nobody_knows,
                "role": Role.ADMIN.value,
                "org": f"org-{number // teams}",
                "team": f"team-{number % teams}",
                "created_at": now,
                "disabled_at": None,
            }
        )
        keys.append(
            {
                "id": new_id("key"),
                "user_id": user_id,
                "name": "benchmark",
                "prefix": secrets.shown_prefix(key),
                "key_hash": secrets.digest(key),
                "scopes": None,
                "created_at": now,
                "expires_at": None,
                "last_used_at": now,
                "revoked_at": None,
            }
        )
    engine = create_engine(controller.database_url)
    with engine.begin() as connection:
        for number in range(orgs):
            org = {"slug": f"org-{number}", "name": f"Organisation {number}", "time_zone": "UTC"}
            connection.execute(insert(Organisation), {**org, "created_at": now})
        connection.execute(insert(Team), [team_of(user, now) for user in users])
        connection.execute(insert(User), users)
        connection.execute(insert(Membership), [membership_of(user) for user in users])
        connection.execute(insert(ApiKey), keys)
    engine.dispose()
    return given


def team_of(user: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The row of the team that a user is in."""
    return {"org": user["org"], "slug": user["team"], "name": user["team"], "created_at": now}


def membership_of(user: dict[str, Any]) -> dict[str, Any]:
    """The row that says so."""
    return {"user_id": user["id"], "org": user["org"], "team": user["team"]}
