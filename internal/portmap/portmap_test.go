package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/huin/goupnp/dcps/internetgateway2"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// igd is a router with UPnP: a description and one service.
type igd struct {
	srv *httptest.Server

	mu        sync.Mutex
	mapped    map[string]string // "UDP 24000" -> client:port lease
	calls     map[string]int
	permanent bool // takes no lease
	refuse    string
	address   string
}

const description = `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>box</friendlyName><manufacturer>x</manufacturer><modelName>x</modelName><UDN>uuid:1</UDN>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><friendlyName>w</friendlyName><manufacturer>x</manufacturer><modelName>x</modelName><UDN>uuid:2</UDN>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><friendlyName>c</friendlyName><manufacturer>x</manufacturer><modelName>x</modelName><UDN>uuid:3</UDN>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>
<SCPDURL>/scpd.xml</SCPDURL><controlURL>/control</controlURL><eventSubURL>/event</eventSubURL></service></serviceList>
</device></deviceList></device></deviceList></device></root>`

func newIGD(t *testing.T, addr string) *igd {
	t.Helper()
	g := &igd{mapped: map[string]string{}, calls: map[string]int{}, address: "203.0.113.7"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /desc.xml", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, description) })
	mux.HandleFunc("POST /control", g.control)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	g.srv.Start()
	t.Cleanup(g.srv.Close)
	return g
}

func field(body []byte, name string) string {
	m := regexp.MustCompile("<" + name + ">([^<]*)</" + name + ">").FindSubmatch(body)
	if m == nil {
		return ""
	}
	return string(m[1])
}

func (g *igd) control(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	action := strings.Trim(r.Header.Get("SOAPAction"), `"`)
	action = action[strings.LastIndexByte(action, '#')+1:]
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls[action]++
	answer := ""
	fault := g.refuse
	key := field(body, "NewProtocol") + " " + field(body, "NewExternalPort")
	switch action {
	case "GetExternalIPAddress":
		fault = ""
		answer = "<NewExternalIPAddress>" + g.address + "</NewExternalIPAddress>"
	case "AddPortMapping":
		if g.permanent && field(body, "NewLeaseDuration") != "0" {
			fault = "725"
		}
		if fault == "" {
			g.mapped[key] = field(body, "NewInternalClient") + ":" + field(body, "NewInternalPort") + " " + field(body, "NewLeaseDuration")
		}
	case "DeletePortMapping":
		delete(g.mapped, key)
	}
	w.Header().Set("Content-Type", `text/xml; charset="utf-8"`)
	const envelope = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>%s</s:Body></s:Envelope>`
	if fault != "" {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, envelope, `<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>`+
			fault+`</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault>`)
		return
	}
	fmt.Fprintf(w, envelope, `<u:`+action+`Response xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">`+answer+`</u:`+action+`Response>`)
}

func (g *igd) state() (map[string]string, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]string{}
	for k, v := range g.mapped {
		out[k] = v
	}
	return out, g.calls["AddPortMapping"]
}

// find is discovery without its multicast.
func (g *igd) find(ctx context.Context, _ string) (gateway, error) {
	at, err := url.Parse(g.srv.URL + "/desc.xml")
	if err != nil {
		return nil, err
	}
	list, err := internetgateway2.NewWANIPConnection1ClientsByURLCtx(ctx, at)
	var all []wan
	for _, c := range list {
		all = append(all, c)
	}
	return firstUPnP(ctx, all, err)
}

var ports = []Port{{"udp", 24000, "audio"}, {"tcp", 8443, "HTTPS"}}

// keep runs a keeper; end stops it and waits.
func keep(t *testing.T, cfg Config) (logs *observer.ObservedLogs, told chan netip.Addr, end func()) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	told = make(chan netip.Addr, 10)
	cfg.Ports, cfg.Log, cfg.Tell, cfg.wait = ports, zap.New(core), func(a netip.Addr) { told <- a }, 10*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		New(cfg).Run(ctx)
	}()
	end = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(end)
	return logs, told, end
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal(what)
		}
	}
}

func TestUPnP(t *testing.T) {
	g := newIGD(t, "127.0.0.1:0")
	logs, told, end := keep(t, Config{Kind: UPnP, find: g.find})
	if a := <-told; a.String() != "203.0.113.7" {
		t.Error(a)
	}
	m, _ := g.state()
	if len(m) != 2 || m["UDP 24000"] != "127.0.0.1:24000 1200" || m["TCP 8443"] != "127.0.0.1:8443 1200" {
		t.Errorf("%v", m)
	}
	end()
	if m, _ := g.state(); len(m) != 0 {
		t.Errorf("left behind: %v", m)
	}
	if logs.FilterMessage("port mapped").Len() != 2 || logs.FilterLevelExact(zap.WarnLevel).Len() != 0 {
		t.Errorf("%v", logs.All())
	}
}

func TestUPnPWithoutLeases(t *testing.T) {
	g := newIGD(t, "127.0.0.1:0")
	g.permanent = true
	_, told, end := keep(t, Config{Kind: UPnP, find: g.find})
	<-told
	if m, _ := g.state(); m["UDP 24000"] != "127.0.0.1:24000 0" {
		t.Errorf("%v", m)
	}
	end()
	if m, _ := g.state(); len(m) != 0 {
		t.Errorf("left behind: %v", m)
	}
}

// What another machine has is told and left alone; the address is learned all the same.
func TestUPnPConflict(t *testing.T) {
	g := newIGD(t, "127.0.0.1:0")
	g.refuse = "718"
	logs, told, end := keep(t, Config{Kind: UPnP, find: g.find})
	<-told
	end()
	if n := logs.FilterMessage("port not mapped").Len(); n != 2 {
		t.Errorf("%v", logs.All())
	}
	if g.calls["DeletePortMapping"] != 0 {
		t.Error("another's mapping was removed")
	}
}

func TestBehindTwoRouters(t *testing.T) {
	g := newIGD(t, "127.0.0.1:0")
	g.address = "192.168.0.7"
	logs, told, end := keep(t, Config{Kind: UPnP, find: g.find})
	eventually(t, "no warning", func() bool { return logs.FilterMessageSnippet("behind another").Len() == 1 })
	end()
	if len(told) != 0 {
		t.Errorf("told of %s", <-told)
	}
}

func TestNoRouter(t *testing.T) {
	tries := 0
	logs, _, end := keep(t, Config{Kind: Any, find: func(context.Context, string) (gateway, error) {
		tries++
		return nil, ErrNone
	}})
	eventually(t, "no warning", func() bool { return logs.FilterMessageSnippet("no router answers").Len() == 1 })
	time.Sleep(100 * time.Millisecond) // some more tries
	end()
	if n := logs.FilterMessageSnippet("no router answers").Len(); n != 1 || tries < 2 {
		t.Errorf("%d warnings of %d tries", n, tries)
	}
}

// counted is a router whose leases are short and that is away for a time.
type counted struct {
	mu      sync.Mutex
	adds    int
	away    bool
	offer   uint16
	removed []Port
}

func (c *counted) String() string { return "counted" }
func (c *counted) external(context.Context) (netip.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return netip.Addr{}, errors.New("away")
	}
	return netip.MustParseAddr("203.0.113.9"), nil
}

func (c *counted) add(_ context.Context, p Port, _ time.Duration) (uint16, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return 0, 0, errors.New("away")
	}
	c.adds++
	if c.offer != 0 {
		return c.offer, time.Hour, nil
	}
	return p.Port, time.Hour, nil
}

func (c *counted) remove(_ context.Context, p Port) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removed = append(c.removed, p)
	return nil
}

func TestAnotherPortIsNotKept(t *testing.T) {
	c := &counted{offer: 5}
	logs, told, end := keep(t, Config{Kind: Any, find: func(context.Context, string) (gateway, error) { return c, nil }})
	<-told
	end()
	if len(c.removed) != len(ports) || logs.FilterMessage("port not mapped").Len() != len(ports) {
		t.Errorf("%v %v", c.removed, logs.All())
	}
}

func TestRenews(t *testing.T) {
	k := New(Config{Kind: Any, Ports: ports, Log: zap.NewNop()})
	c := &counted{}
	for i := 1; i <= 3; i++ {
		life, err := k.renew(t.Context(), c)
		if err != nil || life != lease || c.adds != i*len(ports) {
			t.Errorf("%s, %v, %d", life, err, c.adds)
		}
	}
	c.away = true
	if _, err := k.renew(t.Context(), c); err == nil {
		t.Error("a router that is away was taken for one that answers")
	}
}

// pmp is a router with NAT-PMP on its fixed port.
func pmp(t *testing.T) (addr netip.Addr, mapped func() map[uint16]uint32) {
	t.Helper()
	addr = netip.MustParseAddr("127.53.51.1")
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 5351)))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	list := map[uint16]uint32{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var a []byte
			switch {
			case n == 2 && b[1] == 0:
				a = []byte{0, 128, 0, 0, 0, 0, 0, 1, 203, 0, 113, 8}
			case n == 12 && (b[1] == 1 || b[1] == 2):
				in, life := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint32(b[8:])
				mu.Lock()
				if list[in] = life; life == 0 {
					delete(list, in)
				}
				mu.Unlock()
				a = append([]byte{0, 128 + b[1], 0, 0, 0, 0, 0, 1}, b[4:8]...)
				a = binary.BigEndian.AppendUint32(a, life)
			}
			c.WriteTo(a, from)
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return addr, func() map[uint16]uint32 {
		mu.Lock()
		defer mu.Unlock()
		out := map[uint16]uint32{}
		for k, v := range list {
			out[k] = v
		}
		return out
	}
}

func TestNATPMP(t *testing.T) {
	addr, mapped := pmp(t)
	_, told, end := keep(t, Config{Kind: NATPMP, find: func(context.Context, string) (gateway, error) { return newPMP(addr), nil }})
	if a := <-told; a.String() != "203.0.113.8" {
		t.Error(a)
	}
	if m := mapped(); len(m) != 2 || m[24000] != 1200 || m[8443] != 1200 {
		t.Errorf("%v", m)
	}
	end()
	if m := mapped(); len(m) != 0 {
		t.Errorf("left behind: %v", m)
	}
}

// Discovery by multicast, in a namespace of its own (test/interop/run.sh makes it).
func TestDiscovery(t *testing.T) {
	at := os.Getenv("PARLEY_TEST_IGD")
	if at == "" {
		t.Skip("PARLEY_TEST_IGD names an address of a network of its own")
	}
	g := newIGD(t, at+":0")
	c, err := net.ListenMulticastUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: 1900})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			const urn = "urn:schemas-upnp-org:service:WANIPConnection:1"
			if strings.Contains(string(b[:n]), "M-SEARCH") && strings.Contains(string(b[:n]), urn) {
				fmt.Fprintf(writer{c, from}, "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=100\r\nEXT:\r\nLOCATION: %s/desc.xml\r\nSERVER: x\r\nST: %s\r\nUSN: uuid:3::%s\r\n\r\n", g.srv.URL, urn, urn)
			}
		}
	}()
	defer func() {
		c.Close()
		<-done
	}()
	_, told, end := keep(t, Config{Kind: Any, find: nil})
	if a := <-told; a.String() != "203.0.113.7" {
		t.Error(a)
	}
	if m, _ := g.state(); m["UDP 24000"] != at+":24000 1200" {
		t.Errorf("%v", m)
	}
	end()
	if m, _ := g.state(); len(m) != 0 {
		t.Errorf("left behind: %v", m)
	}
}

type writer struct {
	c  net.PacketConn
	to net.Addr
}

func (w writer) Write(b []byte) (int, error) { return w.c.WriteTo(b, w.to) }
