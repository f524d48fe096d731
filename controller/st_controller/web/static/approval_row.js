/** One row of the table of approvals. */

import { badge, element, labelled } from "./elements.js";
import { counted, timeOf } from "./words.js";

/** `choose(approval, isChosen)` is told when its box is ticked or not. */
export function drawApproval(approval, isChosen, choose) {
  const row = element("tr");
  row.append(
    choice(approval, isChosen, choose),
    labelled(job(approval), "Job"),
    labelled(wish(approval), "Asks for"),
    labelled(reasons(approval), "Why it waits"),
    labelled(needs(approval), "Needs"),
    labelled(until(approval), "Until"),
  );
  return row;
}

function choice(approval, isChosen, choose) {
  const cell = element("td");
  if (!approval.may_decide) return cell;
  const box = element("input");
  box.type = "checkbox";
  box.checked = isChosen;
  box.dataset.act = "choose";
  box.setAttribute("aria-label", `Choose ${approval.job_name}`);
  box.addEventListener("change", () => choose(approval, box.checked));
  cell.append(box);
  return cell;
}

function job(approval) {
  const cell = element("td");
  const link = element("a", "", approval.job_name);
  link.href = `/jobs/${approval.job_id}`;
  const strong = element("strong");
  strong.append(link);
  const whose = `${approval.requested_by}, ${approval.org}/${approval.team}`;
  cell.append(strong, element("span", "quiet", whose));
  return cell;
}

function wish(approval) {
  const cell = element("td", "", counted(approval.slots, "slot"));
  cell.append(element("div", "quiet", `${approval.accelerator} · ${approval.family}`));
  return cell;
}

function reasons(approval) {
  const cell = element("td");
  const list = element("ul", "plain-list");
  for (const reason of approval.reasons) list.append(element("li", "", reason));
  cell.append(list);
  return cell;
}

function needs(approval) {
  const cell = element("td");
  const given = approval.decisions.filter((said) => said.decision === "approve").length;
  cell.append(
    approval.state === "pending"
      ? `${given} of ${approval.quorum} by ${approval.approver} or above`
      : badge(approval.state, approval.state),
  );
  for (const said of approval.decisions) {
    const word = said.decision === "approve" ? "approved" : "rejected";
    const why = said.reason ? `: ${said.reason}` : "";
    cell.append(element("div", "quiet", `${said.user} ${word}${why}`));
  }
  return cell;
}

function until(approval) {
  const cell = element("td");
  cell.append(timeOf(approval.decided_at ?? approval.expires_at, "inline"));
  return cell;
}
