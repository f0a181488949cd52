{{- define "weft.labels" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/part-of: weft
{{- end }}
{{- define "weft.agentLabels" -}}
{{ include "weft.labels" . }}
app.kubernetes.io/component: agent
{{- end }}
{{- define "weft.controllerLabels" -}}
{{ include "weft.labels" . }}
app.kubernetes.io/component: controller
{{- end }}
