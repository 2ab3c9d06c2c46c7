{{- define "fedscan.labels" -}}
app.kubernetes.io/name: fedscan-server
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- define "fedscan.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}
