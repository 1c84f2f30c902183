# Stores the current state of each course. An event that is repeated or late changes nothing.
import json
import sqlite3
from typing import Any

TABLE = """
CREATE TABLE IF NOT EXISTS courses (
    integration_id TEXT NOT NULL,
    course_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    deleted BOOLEAN NOT NULL,
    course TEXT,  -- NULL: deleted, or omitted from the event
    PRIMARY KEY (integration_id, course_id)
)"""
UPSERT = """
INSERT INTO courses (integration_id, course_id, sequence, deleted, course)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (integration_id, course_id) DO UPDATE
SET sequence = excluded.sequence, deleted = excluded.deleted, course = excluded.course
WHERE excluded.sequence > courses.sequence"""


def store(connection: sqlite3.Connection, event: dict[str, Any]) -> bool:
    """Return whether the event is newer than the stored course."""
    data, course = event["data"], event["data"].get("course")
    values = (
        data["integration_id"],
        data["course_id"],
        data["sequence"],
        event["type"] == "course.deleted",
        None if course is None else json.dumps(course),
    )
    with connection:  # one transaction
        return connection.execute(UPSERT, values).rowcount == 1
