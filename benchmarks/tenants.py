"""Many organisations and teams, each with a user and a key, put where a controller keeps them."""

from served import Controller
from sqlalchemy import create_engine, insert

from st_controller.auth import passwords, secrets
from st_controller.auth.secrets import SecretKind
from st_controller.domain.policy.permissions import Role
from st_controller.store.schema import ApiKey, User
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
        connection.execute(insert(User), users)
        connection.execute(insert(ApiKey), keys)
    engine.dispose()
    return given
