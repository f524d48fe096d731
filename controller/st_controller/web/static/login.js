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
  const error = new Error(said.hint ? `${said.detail}: ${said.hint}` : said.detail);
  error.code = said.code;
  throw error;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.hidden = true;
  const { token, username, password, code } = Object.fromEntries(new FormData(form));
  try {
    if (form.dataset.setup === "yes") {
      await post("/v1/auth/setup", { token: token.trim(), username, password });
      form.dataset.setup = "no";
    }
    const given = code?.trim();
    await post("/v1/auth/login", { username, password, ...(given ? { code: given } : {}) });
    location.assign("/");
  } catch (error) {
    if (error.code === "second_factor_needed") {
      const field = document.getElementById("code");
      field.hidden = false;
      field.querySelector("input").focus();
      return;
    }
    problem.textContent = error.message;
    problem.hidden = false;
  }
});
