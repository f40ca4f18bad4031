import type { AnnotationQuery, Dashboard, FieldConfigSource, Panel, VariableModel } from '@grafana/schema';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { FieldConfig as Lines, Options as Series } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type { Options as Heatmap } from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type { Options as Bars } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type { FieldConfig as Cells, Options as Table } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as Timeline } from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';

// An enumeration's member is its text or number in JSON.
type Plain<T> = T extends string ? `${T}` : T extends boolean ? T
  : T extends number ? (number extends T ? number : `${T}` extends `${infer N extends number}` ? N : T)
  : T extends (infer I)[] ? Plain<I>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

// What is the Prometheus data source's own.
type Query = { refId: string; datasource: { type: 'prometheus'; uid: string }; editorMode: 'code'; expr: string; legendFormat: string;
  format: 'time_series' | 'table' | 'heatmap'; instant: boolean; range: boolean };
type Annotation = Plain<Omit<AnnotationQuery, 'target'>> & { titleFormat: string; target: { refId: string; expr: string; interval: string } };

type Of<T extends string, O, C = object> = Plain<Omit<Panel, 'type' | 'targets' | 'options' | 'fieldConfig'>>
  & { type: T; targets: Query[]; options: Plain<O>; fieldConfig: Plain<FieldConfigSource<C>> };
export type Shown = Of<'stat', Stat> | Of<'timeseries', Series, Lines> | Of<'heatmap', Heatmap> | Of<'bargauge', Bars>
  | Of<'table', Table, Cells> | Of<'state-timeline', Timeline>;
export type Board = Plain<Omit<Dashboard, 'panels' | 'annotations'>> & { annotations: { list: Annotation[] }; };
