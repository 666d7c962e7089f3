// KaTeX comes with the site (docs/made/katex); where it is not there, formulas stay readable as TeX.
(function () {
  function draw() {
    if (!window.katex) return;
    document.querySelectorAll(".arithmatex").forEach(function (place) {
      var text = place.textContent.trim();
      var display = text.startsWith("\\[");
      var inner = text.replace(/^\\[\[(]/, "").replace(/\\[\])]$/, "");
      window.katex.render(inner, place, { displayMode: display, throwOnError: false });
    });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", draw);
  else draw();
})();
