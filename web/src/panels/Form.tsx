// The graph as a form: the inputs that it exposes, under the names that `--set` takes; and what it makes.

import { formInputs, type FormInput } from "../graph/form.ts";
import { Output, Preview, picturesOf } from "../canvas/Output.tsx";
import { fraction } from "../graph/run.ts";
import { setNodeValue, useApp, useTab, updateTab } from "../state/app.ts";
import { cancel, faults, outputOf, queueRun, shownRun, useRuns } from "../state/running.ts";
import { useStore } from "../state/store.ts";
import { Control, WidgetView } from "../widgets/Widget.tsx";
import { type RefObject, useEffect, useMemo, useRef } from "react";

export function Form() {
  const doc = useTab((tab) => tab.doc)!;
  const name = useTab((tab) => tab.name);
  const specs = useApp((state) => state.specs);
  const inputs = useMemo(() => formInputs(doc, specs), [doc, specs]);
  const marks = useStore(faults, (all) => all[doc.id]);
  const run = useRuns((state) => shownRun(state, doc.id));
  useEffect(() => updateTab((tab) => (tab.path.length ? { ...tab, path: [] } : tab)), []);
  const running = run?.status === "running";
  const results = useRef<HTMLElement>(null);
  const asked = useRef(false);
  // On a phone they lie below the values: who asked for them is taken there.
  useEffect(() => {
    if (asked.current && run && matchMedia("(max-width: 720px)").matches) results.current?.scrollIntoView();
    asked.current = false;
  }, [run?.id]);
  return (
    <div className="form">
      <form onSubmit={(event) => { event.preventDefault(); asked.current = true; void queueRun(); }}>
        <h1>{name}</h1>
        {inputs.map((it) => <Field key={it.name} it={it} bad={marks?.[it.node.id]?.find((error) => error.input === it.input.name)?.message} />)}
        {inputs.length === 0 && <p className="quiet">This graph has no values to set. Select nodes on the canvas and press F to show theirs here.</p>}
        <div className="form-run">
          <button className="primary">{running ? "Queue another" : "Run"}</button>
          {running && <><progress value={fraction(run)} aria-label="Progress" /><button type="button" onClick={() => void cancel(run.id)}>Cancel</button></>}
        </div>
        {run?.error && <p className="bad" role="alert">{run.error.message}{run.error.hint && <em>{run.error.hint}</em>}</p>}
      </form>
      <Results doc={doc.id} box={results} />
    </div>
  );
}

function Field({ it, bad }: { it: FormInput; bad?: string }) {
  return (
    <div className={`field${bad ? " bad" : ""}`}>
      <span className="field-name"><b>{it.label}</b><code title="The name that --set takes">{it.name}</code></span>
      <div className="widget-row grows">
        <WidgetView node={it.node.id} input={it.input} value={it.node.values[it.input.name]} disabled={false} label={it.input.name} />
        {it.input.control && <Control node={it.node.id} input={it.input} value={it.node.control[it.input.name] ?? "randomize"} />}
      </div>
      {it.input.tooltip && <small>{it.input.tooltip}</small>}
      {bad && <em>{bad}</em>}
    </div>
  );
}

/** Whatever the graph's nodes show, the pictures first. */
function Results({ doc, box }: { doc: string; box: RefObject<HTMLElement | null> }) {
  const nodes = useTab((tab) => tab.doc.scopes[""]!.nodes)!;
  const ids = Object.keys(nodes).join(" ");
  const shown = useRuns((state) => ids.split(" ").filter((id) => outputOf(state, doc, id)).join(" "));
  const current = useRuns((state) => shownRun(state, doc)?.current);
  return (
    <section ref={box} className="results" aria-label="Results" aria-live="polite">
      {current && <Preview doc={doc} path={current} />}
      {shown.split(" ").filter(Boolean).map((id) => <Result key={id} doc={doc} id={id} />)}
      {!shown && !current && <p className="quiet">What it makes appears here.</p>}
    </section>
  );
}

function Result({ doc, id }: { doc: string; id: string }) {
  const output = useRuns((state) => outputOf(state, doc, id));
  if (!output) return null;
  return <div className={picturesOf(output).length ? "result pictured" : "result"}><Output output={output} doc={doc} path={id} /></div>;
}

export { setNodeValue };
