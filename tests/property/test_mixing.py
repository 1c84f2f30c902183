from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.domain.delivery.fair_share import LIVE_IN_A_ROW, Mix

STEP = st.tuples(st.booleans(), st.booleans(), st.integers(1, 40), st.integers(0, 40))


@given(st.lists(STEP, max_size=60))
def test_live_ones_are_never_kept_waiting_by_more_than_their_share(steps):
    mix = Mix()
    for live, replayed, slots, out in steps:
        kind = mix.choose(slots, live=live, replayed=replayed, replayed_out=out)
        if kind == "live":
            assert live
        elif kind == "replayed":
            assert replayed
            assert out < max(1, slots // 4 if live else slots - max(1, slots // 4))
        else:
            assert not live
            assert not replayed or out >= max(1, slots - max(1, slots // 4))
        if kind is not None:
            mix.begun(kind)


@given(st.integers(1, 40), st.integers(0, 100))
def test_a_replayed_one_gets_its_turn_however_many_live_ones_wait(slots, before):
    mix = Mix()
    for _ in range(before):
        mix.begun("live")
    kinds = []
    for _ in range(LIVE_IN_A_ROW + 1):
        kind = mix.choose(slots, live=True, replayed=True, replayed_out=0)
        mix.begun(kind)
        kinds.append(kind)
    assert kinds.count("replayed") == 1


@given(st.lists(st.booleans(), max_size=100), st.integers(1, 16), st.randoms())
def test_both_arrive_in_full_and_a_slot_stays_free_for_live_ones(kinds, slots, source):
    """Attempts end in any order; whatever waits is sent in the end."""
    waiting = {"live": kinds.count(True), "replayed": kinds.count(False)}
    out: list[str] = []
    mix = Mix()
    while any(waiting.values()) or out:
        while len(out) < slots and (
            kind := mix.choose(
                slots,
                live=waiting["live"] > 0,
                replayed=waiting["replayed"] > 0,
                replayed_out=out.count("replayed"),
            )
        ):
            mix.begun(kind)
            waiting[kind] -= 1
            out.append(kind)
        assert out
        assert slots == 1 or out.count("replayed") < slots
        out.pop(source.randrange(len(out)))
