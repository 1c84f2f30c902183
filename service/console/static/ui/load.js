// Loads what a component shows, and keeps it fresh.
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "../vendor/standalone.module.js";

// const { data, problem, busy, reload } = useLoad((signal) => get(to, query, signal), [to], { every: 5 });
// `load` runs again when `deps` change, when `reload()` is called, and, while the page is seen,
// every `every` seconds. What was loaded stays while the next is awaited; `fresh` drops it.
export function useLoad(load, deps, { every = 0, fresh = false } = {}) {
  const [state, setState] = useState({ busy: true });
  const running = useRef(null);
  const latest = useRef(load);
  latest.current = load;

  const reload = useCallback(async () => {
    running.current?.abort();
    const control = new AbortController();
    running.current = control;
    setState((old) => ({ ...old, busy: true }));
    try {
      const data = await latest.current(control.signal);
      if (!control.signal.aborted) setState({ data, busy: false });
    } catch (problem) {
      if (problem.name === "AbortError" || control.signal.aborted) return;
      if (problem.status === undefined) console.error(problem);
      setState((old) => ({ ...old, problem, busy: false }));
    }
  }, []);

  useLayoutEffect(() => {
    if (fresh) setState({ busy: true });
    reload();
    return () => running.current?.abort();
  }, deps);

  useEffect(() => {
    if (!every) return undefined;
    const again = () => {
      if (document.visibilityState === "visible") reload();
    };
    const timer = setInterval(again, every * 1000);
    document.addEventListener("visibilitychange", again);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", again);
    };
  }, [every]);

  return { ...state, reload };
}
