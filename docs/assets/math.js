// KaTeX comes with the site (made/katex) and is taken where a page has formulas; without it they stay readable as TeX.
(function () {
  var home = new URL("../made/katex/", document.currentScript.src);
  function draw() {
    document.querySelectorAll(".arithmatex").forEach(function (place) {
      var text = place.textContent.trim();
      var inner = text.replace(/^\\[\[(]/, "").replace(/\\[\])]$/, "");
      window.katex.render(inner, place, { displayMode: text.startsWith("\\["), throwOnError: false });
    });
  }
  function begin() {
    if (!document.querySelector(".arithmatex")) return;
    var style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("katex.min.css", home);
    document.head.append(style);
    var script = document.createElement("script");
    script.src = new URL("katex.min.js", home);
    script.onload = draw;
    document.head.append(script);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
