/** Labels of every object that weft makes in a cluster. By `part-of` an uninstallation knows them; what lacks it is left alone. */
export const ownLabels = { 'app.kubernetes.io/name': 'weft', 'app.kubernetes.io/part-of': 'weft' } as const
