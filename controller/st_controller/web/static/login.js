"use strict";

const form = document.getElementById("door");
const problem = document.getElementById("problem");

async function post(path, body) {
  const reply = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (reply.ok) return;
  const said = await reply.json();
  throw new Error(said.hint ? `${said.detail}: ${said.hint}` : said.detail);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  const { token, username, password } = Object.fromEntries(new FormData(form));
  try {
    if (form.dataset.setup === "yes") {
      await post("/v1/auth/setup", { token: token.trim(), username, password });
      form.dataset.setup = "no";
    }
    await post("/v1/auth/login", { username, password });
    location.assign("/");
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  }
});
