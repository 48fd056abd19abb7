{{- define "penstock.name" -}}
{{- if contains "penstock" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-penstock" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | quote }}
{{- end }}

{{- define "penstock.image" -}}
{{ printf "%s%s:%s" .root.Values.image.registry (index .root.Values.image .name) (.root.Values.image.tag | default .root.Chart.AppVersion) }}
{{- end }}

{{- define "penstock.secretKey" -}}
valueFrom: {secretKeyRef: {name: {{ .root.Values.existingSecret }}, key: {{ .key }}}}
{{- end }}

{{- /* Pods pass the Pod Security Standard "restricted". */ -}}
{{- define "penstock.podSecurity" -}}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
dnsPolicy: {{ .root.Values.dnsPolicy }}
{{- with .root.Values.dnsConfig }}
dnsConfig: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "penstock.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Replicas on different nodes and zones, as far as these exist. */ -}}
{{- define "penstock.spread" -}}
topologySpreadConstraints:
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "penstock.selector" $ | nindent 8 }}
{{- end }}
{{- end }}

{{- define "penstock.natsAddress" -}}
{{- if .Values.nats.enabled -}}
{{ include "penstock.name" . }}-nats:4222
{{- else -}}
{{ required "nats.url is the URL of your NATS system; or set nats.enabled" .Values.nats.url | trimPrefix "nats://" | trimPrefix "tls://" }}
{{- end }}
{{- end }}

{{- define "penstock.checkNats" -}}
{{- if and .Values.nats.enabled (gt (int .Values.nats.streamReplicas) (int .Values.nats.replicas)) -}}
{{ fail "nats.streamReplicas is larger than nats.replicas: streams need a server for each replica" }}
{{- end }}
{{- end }}

{{- define "penstock.argoNamespace" -}}
{{ .Values.executor.argo.namespace | default .Release.Namespace }}
{{- end }}

{{- define "penstock.natsScheme" -}}
{{ hasPrefix "tls://" .Values.nats.url | ternary "tls" "nats" }}
{{- end }}

{{- /* Environment of a service: what all have, then its own. */ -}}
{{- define "penstock.environment" -}}
{{- $v := .root.Values -}}
- name: PENSTOCK_NATS_SEED
  valueFrom: {secretKeyRef: {name: {{ $v.nats.authSecret }}, key: {{ .component }}.nk}}
- {name: PENSTOCK_NATS_URL, value: {{ printf "%s://%s" (include "penstock.natsScheme" .root) (include "penstock.natsAddress" .root) | quote }}}
- {name: PENSTOCK_REPLICAS, value: {{ $v.nats.streamReplicas | quote }}}
- {name: PENSTOCK_POOLS, value: {{ join "," $v.pools | quote }}}
- {name: PENSTOCK_LOG_LEVEL, value: {{ $v.logLevel }}}
{{- if has .component (list "gateway" "executor") }}
- name: PENSTOCK_SECRETS_KEY
  valueFrom: {secretKeyRef: {name: {{ $v.existingSecret }}, key: secrets-key, optional: true}}
{{- end }}
{{- if eq .component "gateway" }}
- {name: PENSTOCK_HOST, value: 0.0.0.0}
- {name: PENSTOCK_PORT, value: "8765"}
- name: PENSTOCK_NATS_ISSUER_SEED
  valueFrom: {secretKeyRef: {name: {{ $v.nats.authSecret }}, key: issuer.nk}}
- name: PENSTOCK_TOKEN
  {{ include "penstock.secretKey" (dict "root" .root "key" "token") }}
- name: PENSTOCK_ALLOWED_HOSTS
  {{- $name := printf "%s-gateway" (include "penstock.name" .root) }}
  {{- $own := list $name (printf "%s.%s" $name .root.Release.Namespace) (printf "%s.%s.svc" $name .root.Release.Namespace) (printf "%s.%s.svc.%s" $name .root.Release.Namespace $v.clusterDomain) }}
  value: {{ concat $own $v.gateway.allowedHosts (ternary (list $v.gateway.ingress.host) (list) $v.gateway.ingress.enabled) | join "," | quote }}
{{- with $v.gateway.publicUrl }}
- {name: PENSTOCK_PUBLIC_URL, value: {{ . | quote }}}
{{- end }}
- {name: PENSTOCK_ARTIFACTS_VIA_GATEWAY, value: {{ or $v.s3.enabled $v.s3.viaGateway | quote }}}
{{- if $v.postgresql.enabled }}
- name: PENSTOCK_POSTGRESQL_PASSWORD
  {{ include "penstock.secretKey" (dict "root" .root "key" "postgresql-password") }}
- {name: PENSTOCK_DATABASE_URL, value: "postgresql://penstock:$(PENSTOCK_POSTGRESQL_PASSWORD)@{{ include "penstock.name" .root }}-postgresql:5432/penstock"}
{{- else }}
- name: PENSTOCK_DATABASE_URL
  {{ include "penstock.secretKey" (dict "root" .root "key" "database-url") }}
{{- end }}
{{- else if eq .component "executor" }}
- {name: PENSTOCK_POOL, value: {{ $v.executor.pool }}}
- {name: PENSTOCK_SLOTS, value: {{ $v.executor.slots | quote }}}
- {name: PENSTOCK_DRAIN, value: {{ $v.executor.drainSeconds | quote }}}
- {name: PENSTOCK_STOP_TIMEOUT, value: {{ add $v.executor.drainSeconds 20 | quote }}}
- {name: PENSTOCK_EXECUTOR, value: {{ $v.executor.adapter }}}
{{- if eq $v.executor.adapter "argo" }}
- {name: PENSTOCK_ARGO_CONFIG, value: /etc/penstock/argo.yaml}
{{- end }}
{{- else if eq .component "artifacts" }}
- {name: PENSTOCK_ARTIFACTS_URL, value: {{ $v.s3.url | quote }}}
- {name: PENSTOCK_S3_REGION, value: {{ $v.s3.region | quote }}}
- {name: PENSTOCK_S3_ENDPOINT, value: {{ ternary (printf "http://%s-seaweedfs:8333" (include "penstock.name" .root)) $v.s3.endpoint $v.s3.enabled | quote }}}
{{- if or $v.s3.enabled $v.s3.credentials }}
- name: PENSTOCK_S3_ACCESS_KEY
  {{ include "penstock.secretKey" (dict "root" .root "key" "s3-access-key") }}
- name: PENSTOCK_S3_SECRET_KEY
  {{ include "penstock.secretKey" (dict "root" .root "key" "s3-secret-key") }}
{{- end }}
{{- end }}
{{- range $name, $value := (index $v .component).env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "penstock.claim" -}}
{{- if .persistence.enabled -}}
volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources: {requests: {storage: {{ .persistence.size }}}}
{{- end }}
{{- end }}

{{- /* The configuration of the pods of steps. */ -}}
{{- define "penstock.argoConfig" -}}
{{- $a := .Values.executor.argo -}}
{{- /* The pods may be in another namespace. */ -}}
{{- $inside := printf "nats://%s-nats.%s.svc.%s:4222" (include "penstock.name" .) .Release.Namespace .Values.clusterDomain -}}
{{- $url := $a.natsUrl | default (ternary $inside .Values.nats.url .Values.nats.enabled) -}}
{{- $own := dict "image" (include "penstock.image" (dict "root" . "name" "runner")) "nats_url" $url "namespace" (include "penstock.argoNamespace" .) "service_account" (printf "%s-steps" (include "penstock.name" .)) -}}
{{ mergeOverwrite $own (deepCopy $a.config) | toYaml }}
{{- end }}
