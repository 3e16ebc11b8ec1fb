// A component that is fetched when it is first shown. While it is on its way there is one quiet line; where it does not
// arrive, a notice says so and tries again.

import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Button } from "./basic.tsx";
import { Notice } from "./feedback.tsx";

/**
 * @param load imports the component
 * @param what its name for people, `the long tail`
 */
export function lazy<P extends object>(load: () => Promise<ComponentType<P>>, what: string): ComponentType<P> {
  let found: ComponentType<P> | null = null;
  return function Lazy(props: P) {
    const [Component, setComponent] = useState<ComponentType<P> | null>(() => found);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      if (Component || failed) return;
      load().then(
        (arrived) => {
          found = arrived;
          setComponent(() => arrived);
        },
        () => setFailed(true),
      );
    }, [Component, failed]);
    if (Component) return <Component {...props} />;
    if (failed)
      return (
        <Notice
          kind="bad"
          title={`This part of the page did not arrive: ${what}`}
          actions={
            <Button small onClick={() => setFailed(false)}>
              Try again
            </Button>
          }
        >
          <p class="small">The connection was cut, or the page was renewed on its server in the meantime.</p>
        </Notice>
      );
    return (
      <p class="quiet small" aria-busy="true">
        Loading {what} …
      </p>
    );
  };
}
