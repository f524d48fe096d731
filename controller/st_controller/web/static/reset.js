/** The page on which a person chooses a password with an admin's token. */

import { call } from "./api.js";

const form = document.getElementById("reset");
const problem = document.getElementById("problem");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  const { token, new: chosen } = Object.fromEntries(new FormData(form));
  try {
    await call("/v1/auth/reset", { method: "POST", body: { token: token.trim(), new: chosen } });
    location.assign("/login");
  } catch (error) {
    problem.textContent = [error.message, error.hint].filter(Boolean).join(" ");
    problem.hidden = false;
  }
});
