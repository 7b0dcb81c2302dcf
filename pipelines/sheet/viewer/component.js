// The viewer as a component of the dashboard.

import { Viewer } from "./viewer.js";

const viewers = new WeakMap();

export default function show({ data, parentElement, setTriggerValue, setStateValue }) {
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    viewer = new Viewer(parentElement.querySelector(".viewer"));
    viewers.set(parentElement, viewer);
  }
  viewer.hooks = {
    open: (run) => setTriggerValue("open", run),
    askForSteps: () => setStateValue("steps", true),
  };
  viewer.update(data);
  return () => {
    viewer.destroy();
    viewers.delete(parentElement);
  };
}
