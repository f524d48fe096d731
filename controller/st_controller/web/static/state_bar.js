/** The states of many jobs as a bar, with the numbers below it. */

import { element } from "./elements.js";
import { spoken, STATES } from "./states.js";
import { count } from "./words.js";

/** The bar and its legend, which alone is read aloud; `counts`: state -> number of jobs. */
export function stateBar(counts, className = "") {
  const bar = element("div", "state-bar");
  bar.setAttribute("aria-hidden", "true");
  const legend = element("ul", "legend");
  for (const state of STATES.filter((each) => counts[each])) {
    const part = element("span");
    part.dataset.state = state;
    part.style.flexGrow = String(counts[state]);
    bar.append(part);
    const item = element("li", "", `${count(counts[state])} ${spoken(state)}`);
    item.dataset.state = state;
    legend.append(item);
  }
  const both = element("div", className);
  both.append(bar, legend);
  return both;
}
