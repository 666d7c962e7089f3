// The index of the search is larger than a page. Material fetches it with every page; here it waits until somebody turns to
// the search. This runs before material's own script (minialex/site/theme/main.html).
(function () {
  var open = XMLHttpRequest.prototype.open, send = XMLHttpRequest.prototype.send;
  var awake = /[?&]q=/.test(location.search), waiting = [];
  XMLHttpRequest.prototype.open = function (method, address) {
    this.searchIndex = /search\/search_index\.json$/.test(String(address));
    return open.apply(this, arguments);
  };
  XMLHttpRequest.prototype.send = function () {
    var request = this, given = arguments;
    if (awake || !request.searchIndex) return send.apply(request, given);
    waiting.push(function () { send.apply(request, given); });
  };
  function wake(event) {
    if (awake || !event.target.closest || !event.target.closest(".md-search, [for=__search]")) return;
    awake = true;
    waiting.forEach(function (go) { go(); });
  }
  ["focusin", "pointerover", "click"].forEach(function (name) { document.addEventListener(name, wake, true); });
})();
