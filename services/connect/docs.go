package connect

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/docs"
)

// docsPages serves the description of the bus to authors of bots: Markdown to
// read, AsyncAPI for tools.
func docsPages() http.Handler {
	mux := http.NewServeMux()
	serve := func(pattern, kind string, text []byte) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			if _, err := w.Write(text); err != nil {
				zap.L().Debug("docs not sent", zap.Error(err))
			}
		})
	}
	serve("GET /docs", "text/plain; charset=utf-8", docs.Bus)
	serve("GET /asyncapi.json", "application/json", docs.AsyncAPI)
	return mux
}
