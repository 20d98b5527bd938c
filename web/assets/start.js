// The start page: from a name to /r/NAME. Rooms are not listed to strangers.
const form = document.getElementById("go");
const input = document.getElementById("room");
const hint = document.getElementById("room-hint");

if (location.pathname !== "/") {
  document.querySelector("h1").textContent = "There is no such page";
  document.getElementById("lead").textContent = "A link to a room ends in /r/ and the room’s name. Enter the name here instead.";
}

form.addEventListener("submit", (e) => {
  e.preventDefault();
  const name = input.value.trim().toLowerCase().replace(/\s+/g, "-");
  if (!/^[a-z0-9-]{1,64}$/.test(name)) {
    input.setAttribute("aria-invalid", "true");
    hint.textContent = name ? "A room’s name has only small letters a–z, digits and hyphens." : "Enter the room’s name first.";
    input.focus();
    return;
  }
  location.assign("/r/" + name);
});
input.addEventListener("input", () => input.removeAttribute("aria-invalid"));
