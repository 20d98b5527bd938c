package connect

import (
	"net/url"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/config"
)

func TestLinks(t *testing.T) {
	all := map[string]string{"http": "[::]:8080", "https": "[::]:8443", "sip/udp": "192.0.2.7:5060"}
	for name, tc := range map[string]struct {
		change    func(*config.Config)
		listeners map[string]string
		token     string
		want      contract.Links
	}{
		"plain, on every address": {nil, all, "t", contract.Links{Join: "http://localhost:8080/r/main", Operator: "http://localhost:8080/operator#t",
			SIP: "sip:main@192.0.2.7", Jami: "jami:abc"}},
		"without the token": {nil, all, "", contract.Links{Join: "http://localhost:8080/r/main", Operator: "http://localhost:8080/operator",
			SIP: "sip:main@192.0.2.7", Jami: "jami:abc"}},
		"a public address": {func(c *config.Config) { c.HTTP.URL, c.SIP.Host = "https://talk.example/", "sip.example" }, all, "", contract.Links{
			Join: "https://talk.example/r/main", Operator: "https://talk.example/operator", SIP: "sip:main@sip.example", Jami: "jami:abc"}},
		"HTTPS alone, no default room": {func(c *config.Config) { c.Rooms.Default = "" }, map[string]string{"https": "192.0.2.7:443", "sip/tcp": "[2001:db8::1]:5070"}, "",
			contract.Links{Join: "https://192.0.2.7/", Operator: "https://192.0.2.7/operator", SIP: "sip:[2001:db8::1]:5070", Jami: "jami:abc"}},
		"plain on one address": {nil, map[string]string{"http": "192.0.2.7:80"}, "", contract.Links{Join: "http://192.0.2.7/r/main", Operator: "http://192.0.2.7/operator", Jami: "jami:abc"}},
		"nothing listens":      {nil, nil, "t", contract.Links{Jami: "jami:abc"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &config.Config{}
			c.Rooms.Default = "main"
			if tc.change != nil {
				tc.change(c)
			}
			got := links(c, tc.listeners, "abc", tc.token)
			if name == "plain, on every address" || name == "without the token" { // with this machine's address
				u, err := url.Parse(got.Others)
				if err != nil || u.Scheme != "https" || u.Port() != "8443" || u.Path != "/r/main" || u.Hostname() == "localhost" {
					t.Errorf("for others: %q", got.Others)
				}
				got.Others = ""
			}
			if got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}
