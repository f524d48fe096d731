"""The database: schema, transactions, migrations."""
