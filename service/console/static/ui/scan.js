// Looks through the pages of a list for what the API itself cannot filter by.
import { useEffect, useRef, useState } from "../vendor/standalone.module.js";
import { get } from "../api.js";

const PAGE = 500;
const START = { items: [], seen: 0, next: null, busy: false, done: false };

// const { items, seen, busy, done, problem, more, cancel } = useScan(to, query, matches, deps);
// It stops after `stop` matches or at the end of the list; `more()` looks for as many again. A
// change of `deps` begins anew; while `matches` is null nothing is looked for.
export function useScan(to, query, matches, deps, stop = 50) {
  const [state, setState] = useState(START);
  const control = useRef(null);

  const look = async (from) => {
    control.current?.abort();
    const { signal } = (control.current = new AbortController());
    let { items, seen, next } = from;
    const enough = items.length + stop;
    setState({ ...from, busy: true });
    try {
      do {
        const page = await get(to, { ...query, limit: PAGE, after: next }, signal);
        items = [...items, ...page.items.filter(matches)];
        seen += page.items.length;
        next = page.next;
        setState({ items, seen, next, busy: Boolean(next) && items.length < enough, done: !next });
      } while (next && items.length < enough);
    } catch (problem) {
      if (!signal.aborted) setState({ items, seen, next, busy: false, done: false, problem });
    }
  };

  useEffect(() => {
    if (matches) look(START);
    else setState(START);
    return () => control.current?.abort();
  }, deps);

  const cancel = () => {
    control.current?.abort();
    setState((old) => ({ ...old, busy: false }));
  };
  return { ...state, more: () => look(state), cancel };
}
