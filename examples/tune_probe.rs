use std::path::Path;
use twintrack::{mot_format,eval,detection,geometry,time};
use detection::*; use geometry::*; use time::*; use twintrack::track::*;
fn main(){
  let root=Path::new("/work/shared/data/mot17");
  let mut cfg=toml::Table::new();
  let mut per=false;
  for a in std::env::args().skip(1){ if a=="-p"{per=true;continue;} let (k,v)=a.split_once('=').unwrap();
    let v: toml::Value = v.parse::<toml::Value>().unwrap();
    let ks:Vec<&str>=k.split('.').collect();
    let mut t=&mut cfg; for s in &ks[..ks.len()-1]{ t=t.entry(s.to_string()).or_insert(toml::Value::Table(Default::default())).as_table_mut().unwrap(); }
    t.insert(ks[ks.len()-1].into(),v);
  }
  let config:TrackerConfig=cfg.try_into().unwrap();
  let mut parts=vec![];
  let mut total=std::time::Duration::ZERO; let mut nf=0;
  for s in ["02","05","10","13"]{
    let dir=root.join(format!("MOT17-{s}-FRCNN"));
    let info=mot_format::SequenceInfo::read(&dir).unwrap();
    let det=mot_format::read_rows(&dir.join("det/det.txt")).unwrap();
    let mut by=vec![vec![];info.length as usize+1];
    for r in det{ let b=r.ltwh.map(|v|v as f32); by[r.frame as usize].push(Detection{bbox:BBox::from(b),confidence:r.confidence as f32}); }
    let mut t=Tracker::new(config.clone()); let mut out=vec![];
    for f in 1..=info.length{
      let st=std::time::Instant::now();
      let u=t.update(&by[f as usize],&Embeddings::none(),Seconds(1.0/info.frame_rate)).unwrap();
      total+=st.elapsed(); nf+=1;
      for o in u.tracks{ if o.state==TrackState::Confirmed{ out.push(mot_format::MotRow{frame:f,id:o.id as i64,ltwh:<[f32;4]>::from(o.bbox).map(|v|v as f64),confidence:1.0,class:1}); } }
    }
    if std::env::var("OUT").is_ok(){ let mut s2=String::new(); for r in &out{ mot_format::write_row(&mut s2,r.frame,r.id as u64,r.ltwh.map(|v|v as f32),1.0);} let d=std::env::var("OUT").unwrap(); std::fs::create_dir_all(&d).unwrap(); std::fs::write(format!("{d}/MOT17-{s}-FRCNN.txt"),s2).unwrap(); }
    let gt=mot_format::read_rows(&dir.join("gt/gt.txt")).unwrap();
    let q=eval::Sequence::align(&s,info.length,&gt,&out,eval::Benchmark::Mot17).unwrap();
    parts.push(eval::score(&q));
    if per {println!("{}",eval::report::table(&[parts.last().unwrap().scores(s)]).lines().nth(1).unwrap());}
  }
  let c=eval::combine(&parts).scores("ALL");
  println!("{} {:.1}us",eval::report::table(&[c]).lines().nth(1).unwrap(), total.as_secs_f64()*1e6/nf as f64);
}
