// The event log as it grows: the newest events first, and each new one as soon as it is there.
import { useEffect, useRef, useState } from "../../vendor/standalone.module.js";
import { get } from "../../api.js";

const PAGE = 100;
const ENOUGH = 25; // events shown before older ones are asked for
const PAGES = 5; // looked through at once for events that the API cannot filter by
const KEPT = 500; // events shown at most while new ones come
const WAIT = 20; // seconds that the API waits for an event
const AFTER_FAILURE = 3_000; // milliseconds

const seen = () =>
  new Promise((resolve) => {
    if (document.visibilityState === "visible") return resolve();
    document.addEventListener("visibilitychange", resolve, { once: true });
  });

// const tail = useTail({ type }, matches, paused): events (newest first), how many arrived, the
// problem, whether older ones exist and a function that loads them.
export function useTail(filter, matches, paused, deps) {
  const [state, setState] = useState({ events: [], arrived: new Set(), busy: true });
  const place = useRef({}); // cursors: where the tail stands, and where older events follow

  const merge = (found, { isNew }) => setState((old) => {
    const known = new Set(old.events.map((one) => one.data.event_id));
    const more = found.filter((one) => !known.has(one.data.event_id));
    const events = isNew ? [...more.reverse(), ...old.events].slice(0, Math.max(KEPT, old.events.length)) : [...old.events, ...more];
    const arrived = isNew ? new Set(more.map((one) => one.data.event_id)) : old.arrived;
    return { ...old, events, arrived: isNew && !more.length ? old.arrived : arrived };
  });

  const older = async (signal) => {
    setState((old) => ({ ...old, busy: true, problem: null }));
    let shown = 0;
    try {
      for (let page = 0; page < PAGES && shown < ENOUGH && place.current.older !== null; page++) {
        const found = await get("/v1/events", { ...filter, order: "desc", limit: PAGE, after: place.current.older }, signal);
        place.current.older = found.next;
        const matching = found.items.filter(matches);
        shown += matching.length;
        merge(matching, { isNew: false });
      }
      setState((old) => ({ ...old, busy: false, more: place.current.older !== null }));
    } catch (problem) {
      if (!signal?.aborted) setState((old) => ({ ...old, busy: false, problem }));
    }
  };

  // The end of the log is asked for before its newest events, so that none between is missed.
  useEffect(() => {
    const { signal } = (place.current.control = new AbortController());
    place.current = { ...place.current, at: undefined, older: undefined };
    setState({ events: [], arrived: new Set(), busy: true });
    (async () => {
      try {
        place.current.at = (await get("/v1/events", { ...filter, after: "latest", limit: 1 }, signal)).cursor;
        await older(signal);
        if (!signal.aborted) setState((old) => ({ ...old, started: deps.join() }));
      } catch (problem) {
        if (!signal.aborted) setState((old) => ({ ...old, busy: false, problem }));
      }
    })();
    return () => place.current.control.abort();
  }, deps);

  useEffect(() => {
    if (paused || state.started !== deps.join()) return undefined;
    const control = new AbortController();
    const { signal } = control;
    (async () => {
      while (!signal.aborted) {
        await seen();
        try {
          const found = await get("/v1/events", { ...filter, after: place.current.at, limit: PAGE, wait: WAIT }, signal);
          place.current.at = found.cursor;
          merge(found.items.filter(matches), { isNew: true });
          setState((old) => (old.problem ? { ...old, problem: null } : old));
        } catch (problem) {
          if (signal.aborted) return;
          if (problem.type === "cursor-expired") place.current.at = problem.document.oldest_cursor;
          setState((old) => ({ ...old, problem }));
          await new Promise((resolve) => setTimeout(resolve, AFTER_FAILURE));
        }
      }
    })();
    return () => control.abort();
  }, [paused, state.started, ...deps]);

  return { ...state, older: () => older(place.current.control.signal) };
}
