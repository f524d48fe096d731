"""The rules of ``domain/policy`` beside the database: what may be asked for, who has to agree."""
