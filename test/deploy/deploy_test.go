// Package deploy checks what lies in deploy/ for clusters: manifests against the types of
// Kubernetes' API, and dashboard and alerts against the metrics that there are. It is a module
// of its own, so that the node does not depend on Kubernetes.
package deploy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
)

const root = "../.."

// objects are those of a manifest, decoded strictly: a field that the API does not know is an error.
func objects(path string) (out []runtime.Object, err error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw))); ; {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		o, _, err := decoder.Decode(doc, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("object %d: %w", len(out)+1, err)
		}
		out = append(out, o)
	}
}

func TestManifests(t *testing.T) {
	want := map[string]int{"node.yaml": 4, "workers.yaml": 3}
	for name, n := range want {
		all, err := objects(filepath.Join(root, "deploy/kubernetes", name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(all) != n {
			t.Errorf("%s: %d objects, want %d", name, len(all), n)
		}
		for _, o := range all {
			var tmpl *corev1.PodTemplateSpec
			var selector map[string]string
			switch o := o.(type) {
			case *appsv1.StatefulSet:
				tmpl, selector = &o.Spec.Template, o.Spec.Selector.MatchLabels
			case *appsv1.Deployment:
				tmpl, selector = &o.Spec.Template, o.Spec.Selector.MatchLabels
			default:
				continue
			}
			for k, v := range selector {
				if tmpl.Labels[k] != v {
					t.Errorf("%s: the selector %s=%s is not of its pods: %v", name, k, v, tmpl.Labels)
				}
			}
			checkPod(t, name, &tmpl.Spec)
		}
	}
}

// checkPod: least privilege, ports that are the machine's, mounts that have a volume, no limit of CPU.
func checkPod(t *testing.T, name string, p *corev1.PodSpec) {
	t.Helper()
	if p.SecurityContext == nil || p.SecurityContext.RunAsNonRoot == nil || !*p.SecurityContext.RunAsNonRoot || p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
		t.Errorf("%s: the pod may be root, or has a token of the cluster", name)
	}
	volumes := map[string]bool{"data": true} // also of a claim template
	for _, v := range p.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range p.Containers {
		if s := c.SecurityContext; s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.Capabilities == nil {
			t.Errorf("%s: container %s has more rights than it needs", name, c.Name)
		}
		if _, limited := c.Resources.Limits[corev1.ResourceCPU]; limited {
			t.Errorf("%s: container %s has a limit of CPU", name, c.Name)
		}
		seen := map[string]bool{}
		for _, port := range c.Ports {
			key := string(port.Protocol) + port.Name
			if seen[key] || p.HostNetwork && port.HostPort != port.ContainerPort {
				t.Errorf("%s: port %s", name, port.Name)
			}
			seen[key] = true
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			if probe == nil || probe.HTTPGet == nil || !seen[probe.HTTPGet.Port.StrVal] {
				t.Errorf("%s: container %s lacks a probe, or one asks at a port that is none", name, c.Name)
			}
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s: no volume %s", name, m.Name)
			}
		}
	}
}

func TestUnknownFieldIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(path, []byte("apiVersion: v1\nkind: Service\nmetadata: { name: x }\nspec: { clusterIp: None }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o, err := objects(path); err == nil {
		t.Errorf("a field that there is not was taken: %v", o)
	}
}

var metric = regexp.MustCompile(`\bparley_[a-z_]+\b`)

// TestMetricsExist: what dashboard and alerts ask for is what some process tells.
func TestMetricsExist(t *testing.T) {
	var source bytes.Buffer
	for _, dir := range []string{"bus", "services", "internal", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			raw, err := os.ReadFile(path)
			source.Write(raw)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"dashboard.json", "alerts.yaml"} {
		raw, err := os.ReadFile(filepath.Join(root, "deploy/monitoring", file))
		if err != nil {
			t.Fatal(err)
		}
		names := metric.FindAllString(string(raw), -1)
		if len(names) < 5 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
		for _, name := range names {
			if base := strings.TrimSuffix(name, "_bucket"); !strings.Contains(source.String(), `"`+base+`"`) {
				t.Errorf("%s: no process tells of %s", file, name)
			}
		}
	}
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	raw, err := os.ReadFile(filepath.Join(root, "deploy/monitoring/dashboard.json"))
	if err == nil {
		err = json.Unmarshal(raw, &board)
	}
	if err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 || p.Targets[0].Expr == "" {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		ids[p.ID] = true
	}
}
