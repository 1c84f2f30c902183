"""deploy/prose.py: sentences that it refuses and sentences that it leaves alone."""

from __future__ import annotations

import pytest

from deploy.prose import faults, main

REFUSED = {
    "The change is held, for it exceeds the limit.": "because",
    "The poll waits, for the upstream is busy.": "because",
    "All pass but for the last.": "except",
    "The request is no HTTP.": "is not",
    "The event is in the log no more.": "no longer",
    "Whoever stores a token answers for it.": "who acts",
    "What is held waits for a review.": "free relative",
    "First. What its subscriptions have pending is dropped.": "free relative",
    "The page says how.": "state",
    "Receivers are told\nat once.": "announce",
    "The secret is believed.": "accept",
    "The worker gives up.": "discard",
    "Polls go on after that.": "continue",
    "A person has to see to it.": "fix",
    "The answer is what the proxy makes of it.": "what happens",
    "The keys are encrypted anew.": "plain English",
    "The token does not open it.": "authorize",
    "The admin token opens everything.": "authorize",
    "Secrets are sealed.": "encrypt",
    "A full walk takes a minute.": "poll",
    "The outbox remembers its place.": "the thing stores",
    "As many as may be.": "limit",
    "word " * 40 + "end.": "41 words",
    "| setting | what is held, for it is large |\n": "because",
    "- Whoever asks": "who acts",
}
LEFT_ALONE = (
    "The change is held because it exceeds the limit.",
    "Use a key, for example, that expires.",
    "A shorthand, for terminals that have no colour.",
    "The lock is no longer held, and there is no reason to wait.",
    "What does a poll cost?",
    "## What a poll costs",
    "A receiver stores what it verifies.",
    "`What says` is code, and ``it tells``.",
    "```sh\necho 'What he says, for it is code, goes on'\n```",
    "<!-- What a comment says -->",
    "A [link](docs/what-it-says.md) and ![what it says](image.svg)",
    "Word " * 39 + "end. " + "Word " * 39 + "end.",
    "| " + "word " * 30 + "| " + "word " * 30 + "|",
    "- " + "word " * 30 + "\n- " + "word " * 30,
)


@pytest.mark.parametrize(("text", "advice"), REFUSED.items())
def test_a_sentence_is_refused_with_advice(text, advice):
    assert [advice in fault.message for fault in faults(text)] == [True]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_a_plain_sentence_is_left_alone(text):
    assert list(faults(text)) == []


def test_a_fault_has_the_line_at_which_its_paragraph_begins(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```sh\none\ntwo\n```\n\nGood.\n\n* Good.\n  It says\n  so.\n")
    assert main([str(page)]) == 1
    assert capsys.readouterr().out.startswith(f'{page}:10: "says"')
    page.write_text("Good.\n")
    assert main([str(page)]) == 0


def test_descriptions_docstrings_comments_and_log_events_are_read(tmp_path, capsys):
    module = tmp_path / "module.py"
    module.write_text(
        '"""Good.\n\nIt tells."""\n'
        "A = 1  # as it says\n"
        "# Good, and\n"
        "# it says so.\n"
        '_log.info("poll given up", why="it says so")\n'
        'B = "it says so"\n'
    )
    assert main([str(module)]) == 1
    found = capsys.readouterr().out.splitlines()[:-1:2]
    assert {line.removeprefix(f"{module}:").split(": ")[0] for line in found} == {
        "3",
        "4",
        "5",
        "7",
    }
    document = tmp_path / "openapi.json"
    document.write_text('{"paths": [{"summary": "Good", "description": "it; it says so"}]}')
    assert main([str(document)]) == 1
    assert '"says"' in capsys.readouterr().out
    document.write_text('{"description": "%s; %s"}' % (("word " * 39,) * 2))
    assert main([str(document)]) == 0
