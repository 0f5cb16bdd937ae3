// A group: a titled frame behind nodes, which moves with what lies in it.

import { NodeResizer, type Node, type NodeProps } from "@xyflow/react";
import { memo, useState } from "react";
import { updateGroup } from "../graph/edit.ts";
import { edit } from "../state/app.ts";
import type { GroupData } from "./flow.ts";

export const FrameView = memo(function FrameView({ data, selected }: NodeProps<Node<GroupData>>) {
  const { group } = data;
  const [naming, setNaming] = useState(false);
  const color = group.color ?? "#3f5b8c";
  return (
    <div className="frame" style={{ "--frame": color } as React.CSSProperties}>
      <NodeResizer
        isVisible={selected}
        minWidth={120}
        minHeight={80}
        color="var(--accent)"
        onResizeEnd={(_, size) => edit("resize a group", (scope) => updateGroup(scope, group.id, (it) => ({ ...it, bounds: [size.x, size.y, size.width, size.height].map(Math.round) as unknown as typeof it.bounds })))}
      />
      <div className="frame-title grip" onDoubleClick={() => setNaming(true)}>
        {naming ? (
          <input
            className="nodrag" aria-label="Title of the group" autoFocus defaultValue={group.title}
            onBlur={(event) => {
              setNaming(false);
              const title = event.target.value;
              edit("name a group", (scope) => updateGroup(scope, group.id, (it) => ({ ...it, title })));
            }}
            onKeyDown={(event) => (event.key === "Enter" || event.key === "Escape") && event.currentTarget.blur()}
          />
        ) : (
          group.title || "Group"
        )}
      </div>
    </div>
  );
});
