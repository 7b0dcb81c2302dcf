// The viewer in an exported page, with the page's own files to save.

import { Viewer } from "./viewer.js";

const { files, ...sheet } = JSON.parse(document.getElementById("data").textContent);
const shadow = document.getElementById("host").attachShadow({ mode: "open" });
shadow.append(document.getElementById("sheet").content.cloneNode(true));
new Viewer(shadow.querySelector(".viewer")).update(sheet);

for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => {
    const { name, type, text } = files[button.dataset.save];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
