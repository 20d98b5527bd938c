package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
	natpmp "github.com/jackpal/go-nat-pmp"
	"github.com/libp2p/go-netroute"
)

// discover finds a router. NAT-PMP is asked first: its answer takes no waiting for
// others.
func discover(ctx context.Context, kind string) (gateway, error) {
	ctx, cancel := context.WithTimeout(ctx, findWithin)
	defer cancel()
	errs := ErrNone
	if kind == NATPMP || kind == Any {
		g, err := findPMP(ctx)
		if err == nil {
			return g, nil
		}
		errs = fmt.Errorf("%w; NAT-PMP: %w", errs, err)
	}
	if kind == UPnP || kind == Any {
		g, err := findUPnP(ctx)
		if err == nil {
			return g, nil
		}
		errs = fmt.Errorf("%w; UPnP: %w", errs, err)
	}
	return nil, errs
}

// wan is what the three UPnP services have in common.
type wan interface {
	GetExternalIPAddressCtx(context.Context) (string, error)
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, protocol string, internal uint16, client string, on bool, what string, seconds uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, protocol string) error
	GetServiceClient() *goupnp.ServiceClient
}

// upnpGateway is a router with UPnP.
type upnpGateway struct {
	wan  wan
	host string // of the router
	own  string // our address toward it
	good bool   // takes no leases
}

var errService = errors.New("no device with a WAN connection")

// findUPnP returns the first router that has a public address to tell.
func findUPnP(ctx context.Context) (gateway, error) {
	var all []wan
	var errs error
	ip2, _, err := internetgateway2.NewWANIPConnection2ClientsCtx(ctx)
	errs = errors.Join(errs, err)
	for _, c := range ip2 {
		all = append(all, c)
	}
	if len(all) == 0 {
		ip1, _, err := internetgateway2.NewWANIPConnection1ClientsCtx(ctx)
		errs = errors.Join(errs, err)
		for _, c := range ip1 {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		ppp, _, err := internetgateway2.NewWANPPPConnection1ClientsCtx(ctx)
		errs = errors.Join(errs, err)
		for _, c := range ppp {
			all = append(all, c)
		}
	}
	return firstUPnP(ctx, all, errs)
}

func firstUPnP(ctx context.Context, all []wan, errs error) (gateway, error) {
	for _, w := range all {
		g, err := newUPnP(w)
		if err == nil {
			_, err = g.external(ctx)
		}
		if err == nil {
			return g, nil
		}
		errs = errors.Join(errs, err)
	}
	if errs == nil {
		errs = errService
	}
	return nil, errs
}

func newUPnP(w wan) (*upnpGateway, error) {
	at := w.GetServiceClient().Location
	port := at.Port()
	if port == "" {
		port = "80"
	}
	// Connecting a UDP socket sends nothing; it asks the kernel for the route.
	c, err := net.Dial("udp", net.JoinHostPort(at.Hostname(), port))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	own, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	return &upnpGateway{wan: w, host: at.Host, own: own.Addr().String()}, nil
}

func (g *upnpGateway) String() string { return "UPnP " + g.host }

func (g *upnpGateway) external(ctx context.Context) (netip.Addr, error) {
	s, err := g.wan.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("the router's public address: %w", err)
	}
	return a.Unmap(), nil
}

// onlyPermanent is the error of routers that take no lease (IGD WANIPConnection §2.4.16).
const onlyPermanent = "725"

func (g *upnpGateway) add(ctx context.Context, p Port, d time.Duration) (uint16, time.Duration, error) {
	if g.good {
		d = 0
	}
	err := g.wan.AddPortMappingCtx(ctx, "", p.Port, strings.ToUpper(p.Network), p.Port, g.own, true, "Parley "+p.What, uint32(d/time.Second))
	if d > 0 && codeOf(err) == onlyPermanent {
		g.good = true
		return g.add(ctx, p, 0)
	}
	return p.Port, d, err
}

func (g *upnpGateway) remove(ctx context.Context, p Port) error {
	return g.wan.DeletePortMappingCtx(ctx, "", p.Port, strings.ToUpper(p.Network))
}

// codeOf returns the UPnP error code of a SOAP fault, or "".
func codeOf(err error) string {
	var f *soap.SOAPFaultError
	if !errors.As(err, &f) {
		return ""
	}
	if n := f.Detail.UPnPError.Errorcode; n != 0 {
		return fmt.Sprint(n)
	}
	return ""
}

// pmpGateway is a router with NAT-PMP.
type pmpGateway struct {
	c    *natpmp.Client
	addr netip.Addr
}

// pmpWithin bounds one question; the library doubles its pauses from 250 ms until then.
const pmpWithin = 2 * time.Second

func findPMP(ctx context.Context) (gateway, error) {
	r, err := netroute.New()
	if err != nil {
		return nil, err
	}
	_, via, _, err := r.Route(net.IPv4(198, 41, 0, 4)) // a.root-servers.net: nothing is sent
	if err != nil {
		return nil, err
	}
	addr, ok := netip.AddrFromSlice(via)
	if !ok {
		return nil, errors.New("there is no router on the way to the Internet")
	}
	g := newPMP(addr.Unmap())
	_, err = g.external(ctx)
	return g, err
}

func newPMP(router netip.Addr) *pmpGateway {
	return &pmpGateway{c: natpmp.NewClientWithTimeout(router.AsSlice(), pmpWithin), addr: router}
}

func (g *pmpGateway) String() string { return "NAT-PMP " + g.addr.String() }

func (g *pmpGateway) external(context.Context) (netip.Addr, error) {
	r, err := g.c.GetExternalAddress()
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4(r.ExternalIPAddress), nil
}

func (g *pmpGateway) add(_ context.Context, p Port, d time.Duration) (uint16, time.Duration, error) {
	r, err := g.c.AddPortMapping(p.Network, int(p.Port), int(p.Port), int(d/time.Second))
	if err != nil {
		return 0, 0, err
	}
	return r.MappedExternalPort, time.Duration(r.PortMappingLifetimeInSeconds) * time.Second, nil
}

// remove is a mapping of no life, named by its internal port (RFC 6886 §3.4).
func (g *pmpGateway) remove(_ context.Context, p Port) error {
	_, err := g.c.AddPortMapping(p.Network, int(p.Port), 0, 0)
	return err
}
